// ForkWipedPage: one page of private memory that a forked child finds zeroed (MADV_WIPEONFORK), whoever made
// it and however.  Where an identity lies that must not be inherited.
//
// Not thread-safe in creation; the page itself is plain memory.  Never moves.

#ifndef PYHOST_RUNTIME_OS_FORK_WIPED_PAGE_H_
#define PYHOST_RUNTIME_OS_FORK_WIPED_PAGE_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace pyhost {

class ForkWipedPage {
 public:
  static absl::StatusOr<std::unique_ptr<ForkWipedPage>> Create();
  ~ForkWipedPage();
  ForkWipedPage(const ForkWipedPage&) = delete;
  ForkWipedPage& operator=(const ForkWipedPage&) = delete;

  // Zeroed at first; at least 4096 bytes.
  std::byte* data() { return data_; }

 private:
  ForkWipedPage(std::byte* data, size_t size) : data_(data), size_(size) {}
  std::byte* data_;
  size_t size_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_FORK_WIPED_PAGE_H_
