// The encoder's loops for AVX-512 with bfloat16; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx512bf16
#include "encoder_kernels.hpp"
