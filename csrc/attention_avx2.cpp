// Attention for avx2; CMakeLists.txt gives the instruction set.
#define BR_LEVEL avx2
#include "attention_kernel.hpp"
