// What encoder_levels.hpp declares, compiled for the instruction set of the file that includes
// this.
#include "attention_kernel.hpp"
#include "encoder_levels.hpp"
#include "quantize_kernel.hpp"

namespace benchrouter {
namespace BR_LEVEL {

const EncoderKernels encoder_kernels = {attention_head, quantize_rows, dequantize_rows};

}  // namespace BR_LEVEL
}  // namespace benchrouter
