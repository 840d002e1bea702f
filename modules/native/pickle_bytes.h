// PickleBytes: a position in untrusted bytes; every step is checked.

#ifndef PYHOST_MODULES_NATIVE_PICKLE_BYTES_H_
#define PYHOST_MODULES_NATIVE_PICKLE_BYTES_H_

#include <cstddef>
#include <cstring>
#include <span>

namespace pyhost::native {

class PickleBytes {
 public:
  explicit PickleBytes(std::span<const std::byte> bytes)
      : at_(reinterpret_cast<const char*>(bytes.data())), end_(at_ + bytes.size()) {}

  bool AtEnd() const { return at_ == end_; }
  size_t Left() const { return static_cast<size_t>(end_ - at_); }
  // Each is false, and may be anywhere, when the bytes end before.
  bool Byte(unsigned char* byte) {
    if (at_ == end_) return false;
    *byte = static_cast<unsigned char>(*at_++);
    return true;
  }
  bool Skip(unsigned char expected) {
    unsigned char byte = 0;
    return Byte(&byte) && byte == expected;
  }
  bool SkipBytes(size_t count) { return Text(count) != nullptr; }
  template <typename T>
  bool Raw(T* value) {
    const char* from = Text(sizeof(T));
    if (from != nullptr) std::memcpy(value, from, sizeof(T));
    return from != nullptr;
  }
  // The next `size` bytes; null when there are fewer.
  const char* Text(size_t size) {
    if (static_cast<size_t>(end_ - at_) < size) return nullptr;
    const char* text = at_;
    at_ += size;
    return text;
  }

 private:
  const char* at_;
  const char* end_;
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_PICKLE_BYTES_H_
