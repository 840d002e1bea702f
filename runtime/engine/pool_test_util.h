// PoolTest: a pool, and a folder with the scripts of one test.

#ifndef PYHOST_RUNTIME_ENGINE_POOL_TEST_UTIL_H_
#define PYHOST_RUNTIME_ENGINE_POOL_TEST_UTIL_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pyhost/worker_pool.h"

namespace pyhost {

inline std::string Text(const absl::Status& status) { return std::string(status.message()); }

class PoolTest : public ::testing::Test {
 protected:
  PoolTest() {
    std::string name = (std::filesystem::temp_directory_path() / "pyhost-engine-XXXXXX").string();
    scripts_ = mkdtemp(name.data());
  }
  ~PoolTest() override {
    pool_.reset();
    std::filesystem::remove_all(scripts_);
  }

  const std::string& scripts() const { return scripts_; }
  void Script(const std::string& module, const std::string& source) const {
    std::ofstream(absl::StrCat(scripts_, "/", module, ".py")) << source;
  }

  void Start(Options options) {
    options.python_path = {scripts_};
    absl::StatusOr<WorkerPool> pool = WorkerPool::Start(std::move(options));
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_.emplace(*std::move(pool));
  }
  WorkerPool& pool() { return pool_.value(); }
  void EndPool() { pool_.reset(); }

  absl::Status Error(std::string_view function) { return pool().Call<void>(function).Get(); }
  void ExpectAlive() { EXPECT_EQ(pool().Call<int>("builtins:abs", -1).Get().value(), 1); }

  template <typename T>
  static std::vector<T> AllValues(const absl::StatusOr<std::vector<absl::StatusOr<T>>>& results) {
    std::vector<T> values;
    for (const auto& result : results.value()) values.push_back(result.value());
    return values;
  }

  // Polls until it is so; fails after a long time.
  void PollUntil(const std::function<bool()>& done) {
    const absl::Time end = absl::Now() + absl::Seconds(30);
    while (!done()) {
      ASSERT_LT(absl::Now(), end);
      if (pool().Poll() == 0) std::this_thread::yield();
    }
  }

 private:
  std::string scripts_;
  std::optional<WorkerPool> pool_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_POOL_TEST_UTIL_H_
