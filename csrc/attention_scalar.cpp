// Attention for scalar; CMakeLists.txt gives the instruction set.
#define BR_LEVEL scalar
#include "attention_kernel.hpp"
