// The kernels for scalar; CMakeLists.txt gives the instruction set.
#define BR_LEVEL scalar
#include "kernels.hpp"
