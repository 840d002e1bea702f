// SharedArray<T>: an n-dimensional array in a pool's shared memory.  Children see it as a numpy array (a memoryview where
// numpy is missing) over the same memory: nothing is copied, either way.
//
//   absl::StatusOr<pyhost::SharedArray<float>> heights = pool->Allocate<float>({1024, 1024});   // zeros
//   (*heights)(3, 5) = 1.5f;
//   pool->Call<void>("terrain:erode", *heights);         # def erode(heights): heights[3, 5] *= 0.5
//   for (float height : heights->span()) ...
//
// A SharedArray is a handle: copies are the same array.  The memory is given back when the last handle in the engine, the
// last view in a child and the last message on its way are gone; a child that dies lets go of what it had.
//
// A script can return an array: one that it was given (or a contiguous part of it) comes back as the same memory, any other
// is copied once.  `shared()` tells whether an array lies in shared memory; a small one in a reply does not.
//
// SharedArray<const T> is a read-only view: scripts get a read-only numpy array.
//
// Order: always C order (the last index varies fastest), without gaps.
// Thread safety: as a shared_ptr.  What is in the memory is not guarded: engine and scripts agree on turns (an outcome that
// was received shows all that the script wrote before it returned; a call shows all that was written before).

#ifndef PYHOST_SHARED_ARRAY_H_
#define PYHOST_SHARED_ARRAY_H_

#include <array>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyhost {

// The types of elements, little-endian.
enum class DType : uint8_t {
  kBool, kInt8, kInt16, kInt32, kInt64, kUint8, kUint16, kUint32, kUint64, kFloat32, kFloat64, kComplex64, kComplex128,
};
std::string_view DTypeName(DType dtype);  // numpy's name: "float32"
size_t DTypeSize(DType dtype);            // bytes of an element

namespace internal {
template <typename T>
consteval DType FindDType() {
  using U = std::remove_const_t<T>;
  if constexpr (std::is_same_v<U, bool>) return DType::kBool;
  else if constexpr (std::is_same_v<U, float>) return DType::kFloat32;
  else if constexpr (std::is_same_v<U, double>) return DType::kFloat64;
  else if constexpr (std::is_same_v<U, std::complex<float>>) return DType::kComplex64;
  else if constexpr (std::is_same_v<U, std::complex<double>>) return DType::kComplex128;
  else {
    static_assert(std::is_integral_v<U> && sizeof(U) <= 8,
                  "an array holds numbers: bool, integers, float, double, complex");
    const DType first = std::is_signed_v<U> ? DType::kInt8 : DType::kUint8;
    const int step = sizeof(U) == 1 ? 0 : sizeof(U) == 2 ? 1 : sizeof(U) == 4 ? 2 : 3;
    return static_cast<DType>(static_cast<int>(first) + step);
  }
}
}  // namespace internal
template <typename T>
inline constexpr DType kDTypeOf = internal::FindDType<T>();

// Memory that arrays lie in; alive as long as somebody has a SharedHandle to it.
class SharedBlock {
 public:
  virtual ~SharedBlock() = default;
  SharedBlock(const SharedBlock&) = delete;
  SharedBlock& operator=(const SharedBlock&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  // Its name in the session; 0: memory of this process alone.
  uint64_t handle() const { return handle_; }
  uint64_t session_id() const { return session_id_; }

 protected:
  SharedBlock(std::span<std::byte> bytes, uint64_t handle, uint64_t session_id)
      : bytes_(bytes), handle_(handle), session_id_(session_id) {}
  std::span<std::byte> bytes_;

 private:
  const uint64_t handle_;
  const uint64_t session_id_;
};
using SharedHandle = std::shared_ptr<const SharedBlock>;

// An array whose element type is known at run time only.  The default one is empty, one-dimensional and float64.
class AnyArray {
 public:
  AnyArray() = default;
  // InvalidArgument when `shape` does not fit into the block behind `offset`, has a negative part, or the address is not
  // aligned for the type.
  static absl::StatusOr<AnyArray> Over(SharedHandle block, size_t offset, DType dtype, std::vector<int64_t> shape,
                                       bool readonly = false);
  static AnyArray Empty(DType dtype);
  // A copy of `data` in memory of this process alone.
  static AnyArray CopyOf(DType dtype, std::vector<int64_t> shape, const void* data);

  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  size_t size() const { return size_; }                    // elements
  size_t byte_size() const { return size_ * DTypeSize(dtype_); }
  void* data() const { return data_; }
  bool readonly() const { return readonly_; }              // for scripts that get it
  bool shared() const { return block_ != nullptr && block_->handle() != 0; }
  const SharedHandle& block() const { return block_; }
  size_t offset() const;                                   // bytes from the block's start

  AnyArray ReadOnly() const;
  // Part of the same memory: `count` rows (of the first dimension) from row `first` on.  InvalidArgument when there are not
  // that many.
  absl::StatusOr<AnyArray> Rows(int64_t first, int64_t count) const;
  // "float32[1024, 1024]"
  std::string Describe() const;

 private:
  SharedHandle block_;
  void* data_ = nullptr;
  size_t size_ = 0;
  std::vector<int64_t> shape_ = {0};
  DType dtype_ = DType::kFloat64;
  bool readonly_ = false;
};

namespace internal {
absl::Status CheckArray(const AnyArray& array, DType dtype, bool writable);
}  // namespace internal

template <typename T>
class SharedArray {
 public:
  using value_type = std::remove_const_t<T>;
  static constexpr DType kDType = kDTypeOf<T>;

  SharedArray() : any_(AnyArray::Empty(kDType)) {}
  // InvalidArgument, saying what it is, for an array of another type, and for a read-only one unless T is const.
  static absl::StatusOr<SharedArray> From(AnyArray array) {
    absl::Status status = internal::CheckArray(array, kDType, !std::is_const_v<T>);
    if (!status.ok()) return status;
    return SharedArray(std::move(array));
  }
  // A writable array is a read-only one as well.
  template <typename U>
    requires(std::is_same_v<const U, T> && !std::is_const_v<U>)
  SharedArray(const SharedArray<U>& other) : any_(other.any().ReadOnly()) {}  // NOLINT: implicit

  T* data() const { return static_cast<T*>(any_.data()); }
  std::span<T> span() const { return {data(), size()}; }
  size_t size() const { return any_.size(); }
  const std::vector<int64_t>& shape() const { return any_.shape(); }
  int64_t shape(size_t dimension) const { return any_.shape()[dimension]; }
  bool shared() const { return any_.shared(); }
  const AnyArray& any() const { return any_; }

  // Part of the same array: `count` rows (of the first dimension) from row `first` on.
  absl::StatusOr<SharedArray> Rows(int64_t first, int64_t count) const {
    absl::StatusOr<AnyArray> rows = any_.Rows(first, count);
    if (!rows.ok()) return rows.status();
    return SharedArray(*std::move(rows));
  }

  T* begin() const { return data(); }
  T* end() const { return data() + size(); }
  T& operator[](size_t index) const { return data()[index]; }  // of all elements, in C order
  // One index for each dimension.  Unchecked, as a vector's [].
  template <typename... Index>
    requires(std::is_convertible_v<Index, int64_t> && ...)
  T& operator()(Index... index) const {
    const std::array<int64_t, sizeof...(Index)> indices = {static_cast<int64_t>(index)...};
    int64_t at = 0;
    for (size_t i = 0; i < indices.size(); ++i) at = at * any_.shape()[i] + indices[i];
    return data()[at];
  }

 private:
  explicit SharedArray(AnyArray array) : any_(std::move(array)) {}
  AnyArray any_;
};

}  // namespace pyhost

#endif  // PYHOST_SHARED_ARRAY_H_
