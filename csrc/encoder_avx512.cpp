// The encoder's loops for AVX-512; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx512
#include "encoder_kernels.hpp"
