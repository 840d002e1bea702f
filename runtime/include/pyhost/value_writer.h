// ValueWriter: writes C++ values as a standard pickle (protocol 5) that any Python reads with pickle.loads.
//
// Most code uses EncodeArguments (codec.h).  A codec of your own (codec.h) writes its type through these methods.  Each
// returns whether all went well so far; after a failure the writer keeps the first reason and ignores everything else:
//
//   static bool Write(ValueWriter& writer, const Money& money) {
//     return writer.BeginTuple() && writer.Int64(money.cents) && writer.String(money.currency) && writer.EndTuple();
//   }
//
// Not thread-safe; one writer for one pickle.

#ifndef PYHOST_VALUE_WRITER_H_
#define PYHOST_VALUE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyhost/shared_array.h"

namespace pyhost {

// A pickle, and the shared memory that it refers to: kept alive by who sends it until it is sent.
struct EncodedValue {
  std::string bytes;
  std::vector<SharedHandle> handles;
};

class ValueWriter {
 public:
  ValueWriter();
  ValueWriter(const ValueWriter&) = delete;
  ValueWriter& operator=(const ValueWriter&) = delete;

  bool None();
  bool Bool(bool value);
  bool Int64(int64_t value);
  bool Uint64(uint64_t value);
  // Two's complement, little-endian, of any size.
  bool BigInteger(std::string_view twos_complement);
  bool Double(double value);
  bool Complex(double real, double imaginary);
  bool String(std::string_view utf8);  // fails when it is not valid UTF-8
  bool Bytes(std::span<const std::byte> bytes);
  bool ByteArray(std::span<const std::byte> bytes);
  bool Array(const AnyArray& array);  // by handle when it lies in shared memory, else a copy

  // Items between Begin and End; for a dict: key, value, key, value.
  bool BeginList();
  bool EndList();
  bool BeginTuple();
  bool EndTuple();
  bool BeginDict();
  bool EndDict();
  bool BeginSet();
  bool EndSet();
  bool BeginFrozenSet();
  bool EndFrozenSet();

  // False, always.  The first failure is kept.
  bool Fail(std::string_view why);
  // For containers, after an item failed: puts `[index]` or `["key"]` in front of the way to the culprit.
  bool FailedAt(size_t index);
  bool FailedAt(std::string_view key);

  bool ok() const { return status_.ok(); }
  // Ends the pickle.  InvalidArgument says what failed, and where: `name` and the way from there.
  absl::StatusOr<EncodedValue> Finish(std::string_view name) &&;

 private:
  void Put(unsigned char opcode) { out_.push_back(static_cast<char>(opcode)); }
  void PutSized(unsigned char short_opcode, unsigned char opcode, unsigned char long_opcode, std::string_view data);
  void PutGlobal(uint32_t* memo, std::string_view module, std::string_view name);
  void PutText(std::string_view utf8);
  void PutBlock(const SharedHandle& block);
  bool Enter();
  bool Leave(unsigned char opcode);

  std::string out_;
  std::vector<SharedHandle> handles_;
  absl::Status status_;
  std::string path_;
  int depth_ = 0;
  uint32_t memo_size_ = 0;
  // Memo number + 1 of each global that was written; 0: not yet.
  uint32_t attach_memo_ = 0;
  uint32_t copied_memo_ = 0;
  uint32_t rebuild_memo_ = 0;
  uint32_t memory_memo_ = 0;
  uint32_t complex_memo_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_VALUE_WRITER_H_
