#include "pyhost/shared_array.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/values/absl_text.h"

namespace pyhost {
namespace {

constexpr size_t kLargestElement = 16;

struct TypeFacts {
  std::string_view name;
  size_t size;
};
// In the order of DType.
constexpr TypeFacts kTypes[] = {
    {"bool", 1},   {"int8", 1},   {"int16", 2},  {"int32", 4},   {"int64", 8},   {"uint8", 1},      {"uint16", 2},
    {"uint32", 4}, {"uint64", 8}, {"float32", 4}, {"float64", 8}, {"complex64", 8}, {"complex128", 16},
};

class PrivateBlock final : public SharedBlock {
 public:
  explicit PrivateBlock(size_t size)
      : SharedBlock({}, 0, 0), memory_(std::make_unique<Unit[]>((size + sizeof(Unit) - 1) / sizeof(Unit))) {
    bytes_ = {memory_[0].bytes, size};
  }

 private:
  struct alignas(kLargestElement) Unit {
    std::byte bytes[kLargestElement];
  };
  std::unique_ptr<Unit[]> memory_;
};

std::string DescribeArray(DType dtype, const std::vector<int64_t>& shape) {
  return absl::StrCat(AbslText(DTypeName(dtype)), "[", absl::StrJoin(shape, ", "), "]");
}

// False when a part is negative or the product does not fit.
bool CountElements(const std::vector<int64_t>& shape, size_t* count) {
  size_t product = 1;
  bool fits = true;
  for (int64_t part : shape) {
    if (part < 0) return false;
    if (__builtin_mul_overflow(product, static_cast<size_t>(part), &product)) fits = false;
  }
  // Something times nothing is nothing, however large.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) product = 0, fits = true;
  *count = product;
  return fits;
}

}  // namespace

std::string_view DTypeName(DType dtype) { return kTypes[static_cast<size_t>(dtype)].name; }
size_t DTypeSize(DType dtype) { return kTypes[static_cast<size_t>(dtype)].size; }

absl::StatusOr<AnyArray> AnyArray::Over(SharedHandle block, size_t offset, DType dtype, std::vector<int64_t> shape,
                                        bool readonly) {
  size_t size = 0, bytes = 0;
  const size_t there = block->bytes().size();
  if (!CountElements(shape, &size) || __builtin_mul_overflow(size, DTypeSize(dtype), &bytes) || offset > there ||
      bytes > there - offset) {
    return absl::InvalidArgumentError(absl::StrCat("an array ", DescribeArray(dtype, shape), " does not fit into ",
                                                   there, " bytes from byte ", offset, " on"));
  }
  std::byte* data = block->bytes().data() + offset;
  const size_t alignment = std::min(DTypeSize(dtype), sizeof(double));
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an array ", DescribeArray(dtype, shape), " is not aligned at byte ", offset, " of its memory"));
  }
  AnyArray array;
  array.block_ = std::move(block);
  array.data_ = data;
  array.size_ = size;
  array.shape_ = std::move(shape);
  array.dtype_ = dtype;
  array.readonly_ = readonly;
  return array;
}

AnyArray AnyArray::Empty(DType dtype) {
  AnyArray array;
  array.dtype_ = dtype;
  return array;
}

AnyArray AnyArray::CopyOf(DType dtype, std::vector<int64_t> shape, const void* data) {
  AnyArray array;
  CountElements(shape, &array.size_);
  array.dtype_ = dtype;
  array.shape_ = std::move(shape);
  if (array.size_ == 0) return array;
  array.block_ = std::make_shared<PrivateBlock>(array.byte_size());
  array.data_ = array.block_->bytes().data();
  std::memcpy(array.data_, data, array.byte_size());
  return array;
}

size_t AnyArray::offset() const {
  return block_ == nullptr ? 0 : static_cast<size_t>(static_cast<std::byte*>(data_) - block_->bytes().data());
}

AnyArray AnyArray::ReadOnly() const {
  AnyArray array = *this;
  array.readonly_ = true;
  return array;
}

absl::StatusOr<AnyArray> AnyArray::Rows(int64_t first, int64_t count) const {
  if (shape_.empty() || first < 0 || count < 0 || first > shape_[0] || count > shape_[0] - first) {
    return absl::InvalidArgumentError(absl::StrCat("no ", count, " rows from row ", first, " on in ", Describe()));
  }
  AnyArray rows = *this;
  if (shape_[0] == 0) return rows;
  const size_t row = size_ / static_cast<size_t>(shape_[0]);
  rows.shape_[0] = count;
  rows.size_ = row * static_cast<size_t>(count);
  rows.data_ = static_cast<std::byte*>(data_) + row * static_cast<size_t>(first) * DTypeSize(dtype_);
  return rows;
}

std::string AnyArray::Describe() const { return DescribeArray(dtype_, shape_); }

namespace internal {

absl::Status CheckArray(const AnyArray& array, DType dtype, bool writable) {
  if (array.dtype() != dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected an array of ", AbslText(DTypeName(dtype)), ", got ", array.Describe()));
  }
  if (writable && array.readonly()) {
    return absl::InvalidArgumentError(absl::StrCat("expected a writable array, got a read-only ", array.Describe()));
  }
  return absl::OkStatus();
}

}  // namespace internal
}  // namespace pyhost
