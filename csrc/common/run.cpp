#include "common/run.hpp"

namespace benchrouter {

Simd widest_simd() {
#if defined(BR_X86)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
        return Simd::avx512;
    }
    if (__builtin_cpu_supports("avx2")) return Simd::avx2;
#endif
    return Simd::scalar;
}

}  // namespace benchrouter
