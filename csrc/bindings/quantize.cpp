// benchrouter._core.quantize and dequantize: check arguments, release the GIL, call the kernels.
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "embeddings/encoder_levels.hpp"

namespace benchrouter {
namespace {

template <class T>
void quantize(const py::object& values, const py::object& quantized, const py::object& scales,
              TokenType type, Simd simd) {
    const auto from = read<T, 2>(values, "values");
    const auto to = write<uint8_t, 2>(quantized, "quantized");
    const auto scales_view = write<float, 1>(scales, "scales");
    const int64_t rows = from.shape[0], columns = from.shape[1];
    expect_shape(to, {rows, columns}, "as values");
    expect_length("scales", "values", scales_view.shape[0], "values has rows:", rows);
    refuse_overlap({extent(to), extent(scales_view)}, {extent(from)});
    const QuantizeTask task{from.data, type, rows, columns, to.data, scales_view.data};
    const py::gil_scoped_release released;
    encoder_kernels(simd).quantize_rows(task);
}

template <class T>
void dequantize(const py::object& values, const py::object& scales, const py::object& bias,
                const py::object& residual, bool gelu, TokenType type, Simd simd) {
    const auto to = write<T, 2>(values, "values");
    const auto scales_view = read<float, 1>(scales, "scales");
    const auto bias_view = read<float, 1>(bias, "bias");
    const auto residual_view = read_optional<T, 2>(residual, "residual");
    const int64_t rows = to.shape[0], columns = to.shape[1];
    expect_length("scales", "values", scales_view.shape[0], "values has rows:", rows);
    expect_length("bias", "values", bias_view.shape[0], "values has columns:", columns);
    if (!residual.is_none()) expect_shape(residual_view, {rows, columns}, "as values");
    refuse_overlap({extent(to)}, {extent(scales_view), extent(bias_view), extent(residual_view)});
    const DequantizeTask task{
        to.data, type, rows, columns, scales_view.data, bias_view.data, residual_view.data, gelu};
    const py::gil_scoped_release released;
    encoder_kernels(simd).dequantize_rows(task);
}

void quantize_binding(const py::object& values, const py::object& quantized,
                      const py::object& scales, const std::string& simd) {
    const Simd level = checked_simd(simd);
    if (token_type(values) == TokenType::bfloat16) {
        quantize<uint16_t>(values, quantized, scales, TokenType::bfloat16, level);
    } else {
        quantize<float>(values, quantized, scales, TokenType::float32, level);
    }
}

void dequantize_binding(const py::object& values, const py::object& scales, const py::object& bias,
                        const py::object& residual, bool gelu, const std::string& simd) {
    const Simd level = checked_simd(simd);
    if (token_type(values) == TokenType::bfloat16) {
        dequantize<uint16_t>(values, scales, bias, residual, gelu, TokenType::bfloat16, level);
    } else {
        dequantize<float>(values, scales, bias, residual, gelu, TokenType::float32, level);
    }
}

}  // namespace

void bind_quantize(py::module_& module) {
    module.def(
        "quantize", &quantize_binding, py::arg("values"), py::arg("quantized"), py::arg("scales"),
        py::arg("simd") = "auto",
        "Rows to 8 bits, each by its own scale; see benchrouter.embeddings.network.quantized.");
    module.def(
        "dequantize", &dequantize_binding, py::arg("values"), py::arg("scales"), py::arg("bias"),
        py::arg("residual"), py::arg("gelu"), py::arg("simd") = "auto",
        "Products of 8 bits to what they stand for; see benchrouter.embeddings.network.quantized.");
}

}  // namespace benchrouter
