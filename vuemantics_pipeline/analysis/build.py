"""Picks the analyzer that the settings name."""

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.analysis.embedded import EmbeddedAnalyzer
from vuemantics_pipeline.analysis.ollama import OllamaAnalyzer
from vuemantics_pipeline.settings import AnalyzerName, Settings


def build_analyzer(settings: Settings) -> Analyzer:
    """Return the analyzer that `settings.analyzer` names; models load when first used."""
    match settings.analyzer:
        case AnalyzerName.EMBEDDED:
            return EmbeddedAnalyzer()
        case AnalyzerName.OLLAMA:
            return OllamaAnalyzer(settings)
        case AnalyzerName.NONE:
            return ConstantAnalyzer(settings.embedding_dimensions)
