// The encoder's loops, compiled once for each instruction set: CMakeLists.txt defines BR_LEVEL.
#include "embeddings/attention_kernel.hpp"
#include "embeddings/encoder_levels.hpp"
#include "embeddings/quantize_kernel.hpp"

namespace benchrouter {
namespace BR_LEVEL {

const EncoderKernels encoder_kernels = {attention_head, quantize_rows, dequantize_rows};

}  // namespace BR_LEVEL
}  // namespace benchrouter
