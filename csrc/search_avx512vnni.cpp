// The loops over codes for AVX-512 with VNNI; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx512vnni
#include "search_kernel.hpp"
