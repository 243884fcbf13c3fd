"""Picks the analyzer that the settings name."""

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.analysis.embedded import EmbeddedAnalyzer
from vuemantics_pipeline.analysis.ocr import ocr_installed
from vuemantics_pipeline.analysis.ollama import OllamaAnalyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.settings import AnalyzerName, Settings


def build_analyzer(settings: Settings) -> Analyzer:
    """Return the analyzer that `settings.analyzer` names; models load when first used.

    Raises:
        UsageError: 'ocr_missing', VUEMANTICS_OCR asks for what is not installed.
    """
    match settings.analyzer:
        case AnalyzerName.EMBEDDED:
            return EmbeddedAnalyzer(settings.home / "models", ocr=_reads_writing(settings))
        case AnalyzerName.OLLAMA:
            return OllamaAnalyzer(settings)
        case AnalyzerName.NONE:
            return ConstantAnalyzer(settings.embedding_dimensions)


def _reads_writing(settings: Settings) -> bool:
    if settings.ocr is None:
        return ocr_installed()
    if settings.ocr and not ocr_installed():
        raise UsageError(
            "ocr_missing",
            "VUEMANTICS_OCR is on, but what reads writing is not installed.",
            "Run `pip install 'vuemantics-pipeline[ocr]'`, or set VUEMANTICS_OCR=false.",
        )
    return settings.ocr
