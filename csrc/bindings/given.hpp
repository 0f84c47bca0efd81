// The named arguments of one call: numbers, and checked views of arrays of the host or of a device.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/dlpack.hpp"

namespace benchrouter {

class Given {
public:
    Given(const py::kwargs& arguments, bool on_device)
        : arguments_(arguments), on_device_(on_device) {
        inputs_.reserve(16);
        outputs_.reserve(8);
    }

    bool on_device() const { return on_device_; }
    int32_t device() const { return device_.id; }

    py::object operator[](const char* name) const {
        PyObject* const found = PyDict_GetItemString(arguments_.ptr(), name);
        if (!found) throw py::type_error(std::string("missing argument: ") + name);
        return py::reinterpret_borrow<py::object>(found);
    }
    bool has(const char* name) const { return !(*this)[name].is_none(); }

    template <class T>
    T get(const char* name) const {
        const py::object found = (*this)[name];
        try {
            return py::cast<T>(found);
        } catch (const py::cast_error&) {
            throw py::type_error(std::string(name) + " has the wrong type, got " +
                                 std::string(py::str(py::type::of(found).attr("__name__"))));
        }
    }

    // A view of an array that is read, called `shown` in messages.
    template <class T, std::size_t kDims>
    View<const T, kDims> input(const py::handle& array, const char* shown) {
        const auto view = on_device_ ? device_view<const T, kDims>(array, shown, device_)
                                     : read<T, kDims>(array, shown);
        inputs_.push_back(extent(view));
        return view;
    }
    template <class T, std::size_t kDims>
    View<const T, kDims> input(const char* name) {
        return input<T, kDims>((*this)[name], name);
    }
    // An empty view of None.
    template <class T, std::size_t kDims>
    View<const T, kDims> optional(const char* name) {
        return has(name) ? input<T, kDims>(name) : View<const T, kDims>{};
    }

    // A view of an array that is written: the caller's, or on the host a new one for None.
    template <class T, std::size_t kDims>
    View<T, kDims> output(py::object array, const char* shown,
                          const std::array<int64_t, kDims>& shape, const char* because) {
        if (array.is_none() && !on_device_)
            array = py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
        const auto view = on_device_ ? device_view<T, kDims>(array, shown, device_)
                                     : write<T, kDims>(array, shown);
        expect_shape(view, shape, because);
        outputs_.push_back(extent(view));
        arrays_.append(array);
        return view;
    }

    void add_inputs(const std::vector<Extent>& inputs) {
        inputs_.insert(inputs_.end(), inputs.begin(), inputs.end());
    }
    void refuse_overlap() const { benchrouter::refuse_overlap(outputs_, inputs_); }

    // The arrays written to, in the order of the calls of output().
    py::tuple outputs() const { return py::tuple(arrays_); }

private:
    py::kwargs arguments_;
    bool on_device_;
    SharedDevice device_;
    std::vector<Extent> inputs_, outputs_;
    py::list arrays_;
};

}  // namespace benchrouter
