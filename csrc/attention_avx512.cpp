// Attention for avx512; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx512
#include "attention_kernel.hpp"
