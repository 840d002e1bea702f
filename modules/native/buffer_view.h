// BufferView: owns one export of a Python buffer.

#ifndef PYHOST_MODULES_NATIVE_BUFFER_VIEW_H_
#define PYHOST_MODULES_NATIVE_BUFFER_VIEW_H_

#include <cstddef>
#include <span>
#include <utility>

#include "modules/native/python_ref.h"

namespace pyhost::native {

class BufferView {
 public:
  BufferView() = default;
  BufferView(BufferView&& other) noexcept : view_(std::exchange(other.view_, Py_buffer{})) {}
  BufferView& operator=(BufferView&&) = delete;
  ~BufferView() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }

  // False with a Python error when `object` has no contiguous buffer.
  bool Acquire(PyObject* object, int flags = PyBUF_SIMPLE) { return PyObject_GetBuffer(object, &view_, flags) == 0; }

  std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(view_.buf), static_cast<size_t>(view_.len)};
  }
  bool readonly() const { return view_.readonly != 0; }

 private:
  Py_buffer view_{};
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_BUFFER_VIEW_H_
