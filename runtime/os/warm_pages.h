// WarmPages: which pages of a process its forks come to use, so that a fork made ahead of its work can have them before
// the work begins.  Without it each page costs a fault at its first touch, of a microsecond and more: a copy where the
// fork writes, an entry of the page table where it reads or executes a file's page.
//
//   server:  Create ── fork ── fork ── fork
//   forks:             work, Note        Warm ... work
//
// Forks note what they used through memory that all of them share; the shortest of the first notes counts, as what
// any fork needs.  A note is a hint and no more: pages are named by their place in the mappings that the server had
// at Create, and the kernel refuses those that are there no more.
//
// Create: one thread.  Note and Warm: the fork's one thread.  A kernel without MADV_POPULATE_WRITE (before 5.14) or a
// sandbox without /proc/self/pagemap leaves the pages cold.

#ifndef PYHOST_RUNTIME_OS_WARM_PAGES_H_
#define PYHOST_RUNTIME_OS_WARM_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace pyhost {

class WarmPages {
 public:
  static absl::StatusOr<std::unique_ptr<WarmPages>> Create();
  ~WarmPages();
  WarmPages(const WarmPages&) = delete;
  WarmPages& operator=(const WarmPages&) = delete;

  void Note();
  // Asks go_on() every few pages, 5 to 10 us.
  void Warm(absl::FunctionRef<bool()> go_on) const;

 private:
  // A private mapping; pages are counted through all of them.
  struct Range {
    uintptr_t begin;
    uint32_t pages;
    uint32_t first;  // number of its first page
    bool writable;
  };
  struct SharedNote;

  WarmPages() = default;
  void AddRange(std::string_view line);
  std::vector<uint32_t> UsedPages() const;
  static uint64_t GroupOf(const Range& range, uint32_t page);

  std::vector<Range> ranges_;
  SharedNote* note_ = nullptr;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_WARM_PAGES_H_
