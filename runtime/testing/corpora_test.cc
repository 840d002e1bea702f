// Runs the corpus of each fuzz target (fuzz_target.h) through it.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost::testing {
namespace {

using Target = void (*)(FuzzInput);

std::vector<char> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path << " cannot be read";
  return {std::istreambuf_iterator<char>(file), {}};
}

class CorpusTest : public ::testing::Test {
 public:
  CorpusTest(const char* corpus, Beginnings beginnings, Target target)
      : corpus_(corpus), beginnings_(beginnings), target_(target) {}

  void TestBody() override {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(PYHOST_SOURCE_ROOT) / corpus_)) {
      ++files;
      const std::vector<char> bytes = ReadFile(entry.path());
      for (size_t size = beginnings_ == Beginnings::kTruncated ? 0 : bytes.size(); size <= bytes.size(); ++size) {
        // A copy of exactly this size, so that a sanitizer finds a read behind its end.
        const std::vector<char> input(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
        target_(std::as_bytes(std::span(input)));
      }
    }
    EXPECT_GT(files, 0) << "no corpus in " << corpus_;
  }

 private:
  const char* corpus_;
  const Beginnings beginnings_;
  const Target target_;
};

}  // namespace

bool RegisterCorpus(const char* name, const char* corpus, Beginnings beginnings, Target target) {
  ::testing::RegisterTest("CorpusTest", name, nullptr, nullptr, __FILE__, __LINE__,
                          [=]() -> ::testing::Test* { return new CorpusTest(corpus, beginnings, target); });
  return true;
}

}  // namespace pyhost::testing
