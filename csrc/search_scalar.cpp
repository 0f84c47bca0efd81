// The loops over codes for any machine.
#define BR_LEVEL scalar
#include "search_kernel.hpp"
