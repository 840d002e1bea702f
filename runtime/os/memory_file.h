// MemoryFile: an anonymous, sealed file in memory (memfd) and its mapping.  The only place that creates,
// maps and punches shared memory.
//
// The file is sparse: address space and file size are taken at once, memory page by page with Commit() (or with the
// first touch), and given back with Discard().  Close-on-exec; left out of core dumps.  Sealed against
// shrinking and growing, so that no mapping of it ever loses ground.
//
// A program may close the descriptor, or use its number for something else, at any time.  Whoever needs it looks first
// (guarded_descriptor.h) and takes it back from where set_recovery() says.
//
// Owns descriptor and mapping; both go with it.  Thread-safe after creation.

#ifndef PYHOST_RUNTIME_OS_MEMORY_FILE_H_
#define PYHOST_RUNTIME_OS_MEMORY_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/os/guarded_descriptor.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

class MemoryFile {
 public:
  // `name` shows up in /proc/<pid>/maps.  Errors name the call, the size, and the limit met.
  static absl::StatusOr<std::unique_ptr<MemoryFile>> Create(const char* name, uint64_t size);
  // Maps a duplicate of `fd`.  FailedPrecondition when it is no sealed memory file.
  static absl::StatusOr<std::unique_ptr<MemoryFile>> Attach(int fd);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  // As it was last seen: CheckedFd() is for processes whose program may have closed it.
  int fd() const { return fd_.load(std::memory_order_relaxed); }
  absl::StatusOr<int> CheckedFd() const;
  // Where a duplicate of a lost descriptor is had.  Must take no lock that is held around a fork.  Set before another
  // thread uses the file.
  void set_recovery(std::function<absl::StatusOr<UniqueFd>()> recovery) { recovery_ = std::move(recovery); }
  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

  // Backs [offset, offset + size) by memory, so that touching it cannot fail.  ResourceExhausted when there is none.
  absl::Status Commit(uint64_t offset, uint64_t size) const;
  // Gives the memory back; the range reads as zeros afterwards.
  absl::Status Discard(uint64_t offset, uint64_t size) const;

 private:
  explicit MemoryFile(UniqueFd fd) : identity_(fd.get()), fd_(fd.release()) {}
  absl::Status Map();
  absl::Status Allocate(int mode, uint64_t offset, uint64_t size) const;

  // Constant after creation.
  const FileIdentity identity_;
  std::function<absl::StatusOr<UniqueFd>()> recovery_;
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;

  // Changes when a lost one is replaced.  No mutex: a fork may happen at any time.
  mutable std::atomic<int> fd_;
};

// A part of a memory file, mapped copy-on-write: what is written to it stays in this process.  What others write to pages
// that were not written here may show.  Owns the mapping.
class PrivateMapping {
 public:
  // FailedPrecondition when the descriptor is not that of a sealed memory file of `file_size` bytes.
  static absl::StatusOr<PrivateMapping> Map(int fd, uint64_t file_size, uint64_t offset, uint64_t size);
  PrivateMapping() = default;
  PrivateMapping(PrivateMapping&& other) noexcept { *this = std::move(other); }
  PrivateMapping& operator=(PrivateMapping&& other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PrivateMapping();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> pages_;  // what was mapped: whole pages
  std::span<std::byte> bytes_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_MEMORY_FILE_H_
