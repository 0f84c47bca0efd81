// The encoder's loops, compiled once for each instruction set from encoder_kernels.cpp.
#pragma once

#include "embeddings/attention.hpp"
#include "embeddings/quantize.hpp"

namespace benchrouter {

struct EncoderKernels {
    void (*attention_head)(const AttentionTask&, int64_t first_token, int64_t length, int64_t head,
                           const AttentionScratch&);
    void (*quantize_rows)(const QuantizeTask&);
    void (*dequantize_rows)(const DequantizeTask&);
};

namespace scalar {
extern const EncoderKernels encoder_kernels;
}
#if defined(BR_X86)
namespace avx2 {
extern const EncoderKernels encoder_kernels;
}
namespace avx512 {
extern const EncoderKernels encoder_kernels;
}
namespace avx512bf16 {
extern const EncoderKernels encoder_kernels;
}
#endif

// Those of a level that this machine runs; of avx512, with bfloat16 where it has that as well.
inline const EncoderKernels& encoder_kernels(Simd simd) {
#if defined(BR_X86)
    if (simd == Simd::avx512) {
        return __builtin_cpu_supports("avx512bf16") ? avx512bf16::encoder_kernels
                                                    : avx512::encoder_kernels;
    }
    if (simd == Simd::avx2 && __builtin_cpu_supports("fma")) return avx2::encoder_kernels;
#else
    (void)simd;
#endif
    return scalar::encoder_kernels;
}

}  // namespace benchrouter
