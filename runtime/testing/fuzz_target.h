// A function that takes arbitrary bytes, as a fuzzer's target and as a test.
//
//   PYHOST_FUZZ_TARGET(Frame, "runtime/queue/frame_corpus", kTruncated) { use(input); }
//
// With clang, `ninja fuzzers` builds a libFuzzer program of each (runtime/README.md says how).  With any compiler the test
// "corpora" runs all files of the named folder through it, with kTruncated also their beginnings of every length:
// truncation is the commonest damage.

#ifndef PYHOST_RUNTIME_TESTING_FUZZ_TARGET_H_
#define PYHOST_RUNTIME_TESTING_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

namespace pyhost::testing {

using FuzzInput = std::span<const std::byte>;
enum class Beginnings { kWholeOnly, kTruncated };

// What a target knows must hold.  Not assert: a release build looks too.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "fuzz target: %s does not hold\n", what);
  abort();
}

inline std::string_view TextOf(FuzzInput input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

// Makes values of the input; zeros when it is used up.
class FuzzReader {
 public:
  explicit FuzzReader(FuzzInput input) : input_(input) {}
  bool empty() const { return input_.empty(); }
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && !input_.empty(); ++i) {
      value |= static_cast<uint64_t>(input_.front()) << (8 * i);
      input_ = input_.subspan(1);
    }
    return value;
  }
  // 0 to below - 1.
  uint64_t Choice(uint64_t below) { return Number(below > 256 ? 4 : 1) % below; }
  FuzzInput Rest() const { return input_; }

 private:
  FuzzInput input_;
};

// Makes a test of the target; `corpus` is below the project's top.
bool RegisterCorpus(const char* name, const char* corpus, Beginnings beginnings, void (*target)(FuzzInput));

}  // namespace pyhost::testing

#ifdef PYHOST_LIBFUZZER
#define PYHOST_FUZZ_TARGET(name, corpus, beginnings)                                     \
  static void Fuzz##name(::pyhost::testing::FuzzInput input);                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {              \
    Fuzz##name(std::as_bytes(std::span(data, size)));                                    \
    return 0;                                                                            \
  }                                                                                      \
  static void Fuzz##name(::pyhost::testing::FuzzInput input)
#else
#define PYHOST_FUZZ_TARGET(name, corpus, beginnings)                                               \
  static void Fuzz##name(::pyhost::testing::FuzzInput input);                                      \
  [[maybe_unused]] static const bool registered_##name = ::pyhost::testing::RegisterCorpus(        \
      #name, corpus, ::pyhost::testing::Beginnings::beginnings, Fuzz##name);                       \
  static void Fuzz##name(::pyhost::testing::FuzzInput input)
#endif

#endif  // PYHOST_RUNTIME_TESTING_FUZZ_TARGET_H_
