#include "runtime/os/warm_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <type_traits>

#include "runtime/base/status_util.h"
#include "runtime/os/text_file.h"
#include "runtime/os/unique_fd.h"

// Older headers than kernels.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace pyhost {
namespace {

constexpr uint32_t kNotes = 8;         // forks that note what they used
constexpr uint32_t kMaxPages = 16384;  // 64 MiB; a fork that uses more is no example
constexpr uint32_t kPagesBetweenQuestions = 4;

// Of one mapping: 1 GiB.  Larger ones (a sanitizer's, a database's) are not looked through.
constexpr uint32_t kMostPages = uint32_t{1} << 18;

// Pages of a file that one fault enters into the page table, where they are in memory (the kernel's default, 64 KiB).
constexpr uint64_t kFaultAround = 16;

// Bits of /proc/self/pagemap.
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kExclusive = uint64_t{1} << 56;  // nobody else has it

uintptr_t PageSize() {
  static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

uint64_t WarmPages::GroupOf(const Range& range, uint32_t page) {
  return (range.begin / PageSize() + page - range.first) / kFaultAround;
}

// Written by forks at any time, also two at once, and by one that is killed in it: every value is fit to be read.
struct WarmPages::SharedNote {
  std::atomic<uint32_t> notes;
  std::atomic<uint32_t> count;  // of pages
  std::atomic<uint32_t> pages[kMaxPages];
};

absl::StatusOr<std::unique_ptr<WarmPages>> WarmPages::Create() {
  static_assert(std::is_trivially_destructible_v<SharedNote> && std::atomic<uint32_t>::is_always_lock_free);
  std::unique_ptr<WarmPages> warm(new WarmPages);
  // Before the note is mapped: that is not private.
  PYHOST_ASSIGN_OR_RETURN(std::string maps, ReadTextFile("/proc/self/maps"));
  for (std::string_view rest = maps; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    warm->AddRange(line);
  }
  void* memory = mmap(nullptr, sizeof(SharedNote), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "mmap of the note of warm pages");
  warm->note_ = static_cast<SharedNote*>(memory);  // zero pages are its valid beginning
  return warm;
}

WarmPages::~WarmPages() {
  if (note_ != nullptr) munmap(note_, sizeof(SharedNote));
}

// "55d0c8a00000-55d0c8a21000 rw-p 00000000 00:00 0    [heap]"
void WarmPages::AddRange(std::string_view line) {
  uintptr_t begin = 0, end = 0;
  char access[5] = {};
  if (std::sscanf(std::string(line).c_str(), "%lx-%lx %4s", &begin, &end, access) != 3) return;
  // The stack lies where it lies in every process, and the kernel's own pages are no memory of ours.
  if (access[0] != 'r' || access[3] != 'p' || line.ends_with("]") != line.ends_with("[heap]")) return;
  if ((end - begin) / PageSize() > kMostPages) return;
  uint32_t first = ranges_.empty() ? 0 : ranges_.back().first + ranges_.back().pages;
  ranges_.push_back({begin, static_cast<uint32_t>((end - begin) / PageSize()), first, access[1] == 'w'});
}

// Those copied for this process; and of those of files that are in the page table one of each group that the kernel enters
// with one fault.
std::vector<uint32_t> WarmPages::UsedPages() const {
  std::vector<uint32_t> used;
  UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::vector<uint64_t> entries;
  for (const Range& range : ranges_) {
    entries.resize(range.pages);
    const auto offset = static_cast<off_t>(range.begin / PageSize() * sizeof(uint64_t));
    const ssize_t size = pread(pagemap.get(), entries.data(), entries.size() * sizeof(uint64_t), offset);
    const uint64_t wanted = kPresent | (range.writable ? kExclusive : 0);
    for (ssize_t page = 0; page < size / static_cast<ssize_t>(sizeof(uint64_t)); ++page) {
      if ((entries[page] & wanted) != wanted) continue;
      const uint32_t number = range.first + static_cast<uint32_t>(page);
      const bool entered = !range.writable && !used.empty() && GroupOf(range, used.back()) == GroupOf(range, number);
      if (!entered || used.back() < range.first) used.push_back(number);
    }
  }
  return used;
}

void WarmPages::Note() {
  if (note_->notes.fetch_add(1) >= kNotes) return;
  const std::vector<uint32_t> used = UsedPages();
  const uint32_t known = note_->count.load();
  if (used.empty() || used.size() > kMaxPages || (known != 0 && known <= used.size())) return;
  for (size_t i = 0; i < used.size(); ++i) note_->pages[i].store(used[i]);
  note_->count.store(static_cast<uint32_t>(used.size()));
}

void WarmPages::Warm(absl::FunctionRef<bool()> go_on) const {
  const uint32_t count = std::min(note_->count.load(), kMaxPages);
  auto range = ranges_.begin();
  for (uint32_t i = 0, asked_at = 0; i < count;) {
    if (i - asked_at >= kPagesBetweenQuestions) {
      asked_at = i;
      if (!go_on()) return;
    }
    const uint32_t page = note_->pages[i].load();
    while (range != ranges_.end() && page >= range->first + range->pages) ++range;
    if (range == ranges_.end() || page < range->first) return;  // two notes at once
    uint32_t run = 1;
    while (i + run < count && page + run < range->first + range->pages && note_->pages[i + run].load() == page + run) ++run;
    void* begin = reinterpret_cast<void*>(range->begin + (page - range->first) * PageSize());
    const int advice = range->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    if (madvise(begin, run * PageSize(), advice) != 0 && errno == EINVAL) return;
    i += run;
  }
}

}  // namespace pyhost
