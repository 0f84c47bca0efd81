// The kernels for avx512; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx512
#include "kernels.hpp"
