// Checked views of device memory that comes as DLPack capsules. Capsules are borrowed: they keep
// their name, and whoever made them frees them.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "bindings/arrays.hpp"

namespace benchrouter {

// The part of DLPack's binary interface that is used here, for unversioned capsules ("dltensor"):
// https://dmlc.github.io/dlpack/latest/c_api.html
namespace dlpack {

struct Device {
    int32_t type;
    int32_t id;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements; null = C order
    uint64_t byte_offset;
};

struct ManagedTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

constexpr int32_t kCpu = 1, kCuda = 2;
constexpr uint8_t kInt = 0, kUint = 1, kFloat = 2, kBool = 6;

template <class T>
constexpr DataType data_type() {
    const uint8_t code = std::is_same_v<std::remove_const_t<T>, bool> ? kBool
                         : std::is_floating_point_v<T>                ? kFloat
                         : std::is_signed_v<T>                        ? kInt
                                                                      : kUint;
    return {code, 8 * sizeof(T), 1};
}

inline std::string text(DataType type) {
    const char* const names[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
    std::string found = type.code < 7 ? names[type.code] : "type" + std::to_string(type.code) + "_";
    if (type.code != kBool) found += std::to_string(type.bits);
    return type.lanes == 1 ? found : found + "x" + std::to_string(type.lanes);
}

inline std::string text(Device device) {
    const std::string id = std::to_string(device.id);
    if (device.type == kCpu) return "the CPU";
    return device.type == kCuda ? "cuda:" + id
                                : "device " + id + " of DLPack type " + std::to_string(device.type);
}

inline std::string text(const int64_t* lengths, int32_t count, int64_t scale = 1) {
    std::string found = "(";
    for (int32_t d = 0; d < count; ++d)
        found += (d ? ", " : "") + std::to_string(scale * lengths[d]);
    return found + (count == 1 ? ",)" : ")");
}

}  // namespace dlpack

// The device type that kernels run on; tests/votes/cuda_on_host/ runs them on the host.
#if defined(BR_DEVICE_ON_HOST)
constexpr int32_t kDeviceType = dlpack::kCpu;
#else
constexpr int32_t kDeviceType = dlpack::kCuda;
#endif

// The device that all arguments of one call share, set by the first.
struct SharedDevice {
    int32_t id = -1;
    const char* name = "";
};

// A view of the tensor in `capsule`, refused unless it has T's dtype, kDims dimensions, C order and
// alignment, and lies on a CUDA device, the one of the arguments before it.
template <class T, std::size_t kDims>
View<T, kDims> device_view(const py::handle& capsule, const char* name, SharedDevice& shared) {
    const std::string what = name;
    if (!PyCapsule_CheckExact(capsule.ptr())) {
        throw py::type_error(what + " must be a DLPack capsule, got " +
                             std::string(py::str(py::type::of(capsule).attr("__name__"))));
    }
    if (!PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
        const char* const found = PyCapsule_GetName(capsule.ptr());
        refuse_value(what + " must be a DLPack capsule named 'dltensor', got '" +
                     (found ? found : "") + "'");
    }
    const auto* const managed =
        static_cast<const dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    const dlpack::Tensor& tensor = managed->tensor;
    constexpr dlpack::DataType expected = dlpack::data_type<T>();
    if (tensor.dtype.code != expected.code || tensor.dtype.bits != expected.bits ||
        tensor.dtype.lanes != expected.lanes) {
        throw py::type_error(what + " must be " + dlpack::text(expected) + ", got " +
                             dlpack::text(tensor.dtype));
    }
    const std::string shape = dlpack::text(tensor.shape, tensor.ndim);
    if (tensor.ndim != static_cast<int32_t>(kDims)) {
        refuse_value(what + " must have " + std::to_string(kDims) +
                     (kDims == 1 ? " dimension" : " dimensions") + ", got shape " + shape);
    }
    View<T, kDims> view;
    view.name = name;
    for (std::size_t d = 0; d < kDims; ++d) view.shape[d] = tensor.shape[d];
    int64_t stride = 1;
    for (std::size_t d = kDims; tensor.strides && view.bytes() > 0 && d-- > 0;) {
        if (view.shape[d] > 1 && tensor.strides[d] != stride) {
            refuse_value(what + " must be C-contiguous, got strides " +
                         dlpack::text(tensor.strides, tensor.ndim, sizeof(T)) + " for shape " +
                         shape);
        }
        stride *= view.shape[d];
    }
    if (tensor.device.type != kDeviceType) {
        refuse_value(what + " must be on a CUDA device, got " + dlpack::text(tensor.device));
    }
    if (shared.id < 0) {
        shared = {tensor.device.id, name};
    } else if (shared.id != tensor.device.id) {
        refuse_value(what + " must be on the device of " + shared.name + ", cuda:" +
                     std::to_string(shared.id) + ", got " + dlpack::text(tensor.device));
    }
    char* const data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0) {
        refuse_value(what + " must be aligned to its item size, got an unaligned tensor");
    }
    view.data = reinterpret_cast<T*>(data);
    return view;
}

}  // namespace benchrouter
