// The encoder's loops for every machine; CMakeLists.txt gives the instruction set.
#define BR_LEVEL scalar
#include "encoder_kernels.hpp"
