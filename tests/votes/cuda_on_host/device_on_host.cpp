// The bindings and kernels of the device, for tensors on the CPU, as a module of its own: what
// tests/helpers/device.py builds.
#define BR_DEVICE_ON_HOST
#include "bindings/device.cpp"
#include "bindings/faults.cpp"
#include "bindings/inputs.cpp"
#include "scores/expect_cuda.cu"
#include "votes/vote_cuda.cu"

PYBIND11_MODULE(device_on_host, module) {
    module.attr("has_cuda") = true;
    benchrouter::bind_faults(module);
    benchrouter::bind_device(module);
}
