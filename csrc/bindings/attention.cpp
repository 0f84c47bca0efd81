// benchrouter._core.attention: checks arguments, releases the GIL, calls the kernel.
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "embeddings/attention.hpp"

namespace benchrouter {

TokenType token_type(const py::object& array) {
    const bool halved =
        py::isinstance<py::array>(array) &&
        py::reinterpret_borrow<py::array>(array).dtype().num() == py::dtype::of<uint16_t>().num();
    return halved ? TokenType::bfloat16 : TokenType::float32;
}

namespace {

template <class T>
void attend(const py::object& query_key_value, const py::object& runs, int64_t heads,
            const py::object& bias, const py::object& attended, TokenType type, Simd simd) {
    const auto from = read<T, 2>(query_key_value, "query_key_value");
    const auto to = write<T, 2>(attended, "attended");
    const auto runs_view = read<int64_t, 2>(runs, "runs");
    const auto bias_view = read_optional<float, 3>(bias, "bias");
    const int64_t tokens = from.shape[0], width = from.shape[1];
    if (heads < 1 || width % (3 * heads) != 0 || width == 0) {
        refuse_value("query_key_value has " + std::to_string(width) +
                     " columns, expected a multiple of 3 times heads = " + std::to_string(heads));
    }
    expect_shape(to, {tokens, width / 3}, "(tokens, a third of the columns of query_key_value)");
    expect_length("runs", "columns", runs_view.shape[1], "expected", 2);
    int64_t held = 0, longest = 0;
    for (int64_t r = 0; r < runs_view.shape[0]; ++r) {
        const int64_t prompts = runs_view.data[2 * r], length = runs_view.data[2 * r + 1];
        if (prompts < 1 || length < 1 || prompts > tokens || length > tokens) {
            refuse_value("runs must be in [1, tokens = " + std::to_string(tokens) + "], got (" +
                         std::to_string(prompts) + ", " + std::to_string(length) + ") at [" +
                         std::to_string(r) + "]");
        }
        held += prompts * length;
        longest = length > longest ? length : longest;
    }
    if (held != tokens) {
        refuse_value("runs hold " + std::to_string(held) + " tokens, query_key_value has " +
                     std::to_string(tokens));
    }
    if (bias_view.data != nullptr) {
        const int64_t side = bias_view.shape[1];
        expect_shape(bias_view, {heads, side, side}, "(heads, length, length)");
        if (side < longest) {
            refuse_value("bias is of " + std::to_string(side) + " tokens, the longest prompt has " +
                         std::to_string(longest));
        }
    }
    refuse_overlap({extent(to)}, {extent(from), extent(runs_view), extent(bias_view)});
    const AttentionTask task{from.data,
                             to.data,
                             type,
                             runs_view.data,
                             runs_view.shape[0],
                             heads,
                             width / (3 * heads),
                             bias_view.data,
                             bias_view.data != nullptr ? bias_view.shape[1] : 0};
    const py::gil_scoped_release released;
    attention(task, simd);
}

void attention_binding(const py::object& query_key_value, const py::object& runs, int64_t heads,
                       const py::object& bias, const py::object& attended,
                       const std::string& simd) {
    const Simd level = checked_simd(simd);
    if (token_type(query_key_value) == TokenType::bfloat16) {
        attend<uint16_t>(query_key_value, runs, heads, bias, attended, TokenType::bfloat16, level);
    } else {
        attend<float>(query_key_value, runs, heads, bias, attended, TokenType::float32, level);
    }
}

}  // namespace

void bind_attention(py::module_& module) {
    module.def(
        "attention", &attention_binding, py::arg("query_key_value"), py::arg("runs"),
        py::arg("heads"), py::arg("bias"), py::arg("attended"), py::arg("simd") = "auto",
        "Softmax attention within every prompt; see benchrouter.embeddings.network.attention.");
}

}  // namespace benchrouter
