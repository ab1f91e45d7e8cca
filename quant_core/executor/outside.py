"""Operators that the standard or onnxruntime define and that are not supported, by reason."""

from __future__ import annotations

OUTSIDE: dict[str, tuple[str, ...]] = {
    "text and image files instead of numbers": (
        *(
            "ImageDecoder",
            "RegexFullMatch",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "TfIdfVectorizer",
        ),
        *("com.microsoft::MurmurHash3", "com.microsoft::NGramHashMapping", "com.microsoft::Tokenizer"),
        *("com.microsoft::VarlenNGramHashMapping", "com.microsoft::WordConvEmbedding"),
    ),
    "classical machine learning": (
        "all of ai.onnx.ml but Scaler, Imputer, OneHotEncoder and ArrayFeatureExtractor, where they are of numbers",
    ),
    "training": (
        *(
            "all of ai.onnx.preview.training",
            "com.microsoft::BiasDropout",
            "com.microsoft::BitmaskBiasDropout",
        ),
        *("com.microsoft::BitmaskDropout", "com.microsoft::IsAllFinite"),
    ),
    "a search over tokens, or a cache that one shares": (
        *("com.microsoft::BeamSearch", "com.microsoft::BifurcationDetector", "com.microsoft::GreedySearch"),
        *("com.microsoft::DecoderMaskedMultiHeadAttention", "com.microsoft::DecoderMaskedSelfAttention"),
        *("com.microsoft::NGramRepeatBlock", "com.microsoft::Sampling", "com.microsoft::WhisperBeamSearch"),
    ),
    "compiled for one machine": (
        *("all of com.microsoft.nchwc", "all of com.ms.internal.nhwc"),
        *("com.microsoft::EPContext", "com.microsoft::Snpe"),
    ),
    "ragged batches and paged caches of GPU servers": (
        *("com.microsoft::PackedAttention", "com.microsoft::PackedMultiHeadAttention"),
        *("com.microsoft::PackedSparseAttentionIndexer", "com.microsoft::PagedAttention"),
        *("com.microsoft::RemovePadding", "com.microsoft::RestorePadding"),
        *("com.microsoft::SparsePagedAttention", "com.microsoft::VarlenCausalConvWithState"),
    ),
    "number formats and layouts of accelerators": (
        *("com.microsoft::DequantizeBFP", "com.microsoft::DequantizeWithOrder", "com.microsoft::GemmFloat8"),
        *("com.microsoft::MatMulBlockQuantizedFp4Weight", "com.microsoft::MatMulBlockQuantizedFp8Weight"),
        *("com.microsoft::MatMulFpQ4", "com.microsoft::QOrderedAttention", "com.microsoft::QOrderedGelu"),
        *("com.microsoft::QOrderedLayerNormalization", "com.microsoft::QOrderedLongformerAttention"),
        *("com.microsoft::QOrderedMatMul", "com.microsoft::QuantizeBFP", "com.microsoft::QuantizeWithOrder"),
    ),
    "not written yet; the same model exports with standard operators too": (
        *("com.microsoft::AttnLSTM", "com.microsoft::CausalConvWithState", "com.microsoft::DecoderAttention"),
        *(
            "com.microsoft::DynamicSparseAttention",
            "com.microsoft::DynamicTimeWarping",
            "com.microsoft::EngramGate",
        ),
        *(
            "com.microsoft::GatedDeltaNet",
            "com.microsoft::GatedRelativePositionBias",
            "com.microsoft::GemmaRotaryEmbedding",
        ),
        *(
            "com.microsoft::LinearAttention",
            "com.microsoft::LongformerAttention",
            "com.microsoft::MatMulInteger16",
        ),
        *("com.microsoft::MatMulNBitsMlp", "com.microsoft::MatMulNBitsQkv", "com.microsoft::MaxpoolWithMask"),
        *("com.microsoft::MulInteger", "com.microsoft::QMoE", "com.microsoft::ReduceSumInteger"),
        *("com.microsoft::RelativePositionBias", "com.microsoft::SampleOp", "com.microsoft::SparseAttention"),
        *("com.microsoft::SparseAttentionIndexer", "com.microsoft::SparseToDenseMatMul"),
    ),
}
"""Reason -> operators, with their domain where it is not that of the standard."""
