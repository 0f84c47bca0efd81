// The encoder's loops for AVX2; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx2
#include "encoder_kernels.hpp"
