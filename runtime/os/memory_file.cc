#include "runtime/os/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/memory_limit.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// The limits that can stand behind a refusal, for messages.
std::string DescribeLimits() {
  std::string text;
  if (AddressSpaceLimit() != kNoLimit) {
    absl::StrAppend(&text, ", RLIMIT_AS is ", FormatMemorySize(AddressSpaceLimit()));
  }
  if (FileSizeLimit() != kNoLimit) {
    absl::StrAppend(&text, ", RLIMIT_FSIZE is ", FormatMemorySize(FileSizeLimit()));
  }
  return text;
}

absl::Status SizeError(int error, absl::string_view call, int fd, uint64_t size) {
  return ErrnoStatus(error, absl::StrCat(call, " of memory file ", fd, " (", FormatMemorySize(size),
                                         DescribeLimits(), ")"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryFile>> MemoryFile::Create(const char* name, uint64_t size) {
  // Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ instead of an error.
  if (size > FileSizeLimit()) return SizeError(EFBIG, "ftruncate", -1, size);
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("memfd_create ", name));
  PYHOST_ASSIGN_OR_RETURN(fd, MoveToHighNumber(std::move(fd)));
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return SizeError(errno, "ftruncate", fd.get(), size);
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return ErrnoStatus(errno, absl::StrCat("fcntl F_ADD_SEALS of memory file ", fd.get()));
  }
  std::unique_ptr<MemoryFile> file(new MemoryFile(std::move(fd)));
  file->size_ = size;
  PYHOST_RETURN_IF_ERROR(file->Map());
  return file;
}

absl::StatusOr<std::unique_ptr<MemoryFile>> MemoryFile::Attach(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 && errno == EBADF) return ErrnoStatus(EBADF, absl::StrCat("descriptor ", fd));
  if (seals < 0) return absl::FailedPreconditionError(absl::StrCat("descriptor ", fd, " is no memory file"));
  if ((seals & kSeals) != kSeals) {
    return absl::FailedPreconditionError(absl::StrCat("memory file ", fd, " is not sealed"));
  }
  PYHOST_ASSIGN_OR_RETURN(UniqueFd copy, DuplicateHigh(fd));
  std::unique_ptr<MemoryFile> file(new MemoryFile(std::move(copy)));
  struct stat info;
  if (fstat(file->fd(), &info) != 0) return ErrnoStatus(errno, absl::StrCat("fstat of memory file ", fd));
  file->size_ = static_cast<uint64_t>(info.st_size);
  PYHOST_RETURN_IF_ERROR(file->Map());
  return file;
}

absl::Status MemoryFile::Map() {
  if (size_ == 0) return absl::FailedPreconditionError(absl::StrCat("memory file ", fd(), " is empty"));
  void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd(), 0);
  if (memory == MAP_FAILED) return SizeError(errno, "mmap", fd(), size_);
  data_ = static_cast<std::byte*>(memory);
  // Only makes core dumps smaller; a kernel that refuses it does no harm.
  static_cast<void>(madvise(memory, size_, MADV_DONTDUMP));
  return absl::OkStatus();
}

MemoryFile::~MemoryFile() {
  if (data_ != nullptr) munmap(data_, size_);
  if (identity_.Is(fd())) close(fd());
}

absl::StatusOr<int> MemoryFile::CheckedFd() const {
  int lost = fd();
  if (identity_.Is(lost)) return lost;
  if (!recovery_) return ErrnoStatus(EBADF, absl::StrCat("memory file ", lost, ", which the program closed"));
  PYHOST_ASSIGN_OR_RETURN(UniqueFd copy, recovery_());
  if (!identity_.Is(copy.get())) {
    return absl::DataLossError(absl::StrCat("another file was given back in the place of memory file ", lost));
  }
  // The lost number is not ours to close.  Where another thread was quicker, its duplicate serves.
  if (fd_.compare_exchange_strong(lost, copy.get())) return copy.release();
  return lost;
}

absl::StatusOr<PrivateMapping> PrivateMapping::Map(int fd, uint64_t file_size, uint64_t offset, uint64_t size) {
  struct stat info;
  if (fstat(fd, &info) != 0 || static_cast<uint64_t>(info.st_size) != file_size ||
      (fcntl(fd, F_GET_SEALS) & kSeals) != kSeals) {
    return absl::FailedPreconditionError(absl::StrCat("descriptor ", fd, " is not the memory file any more"));
  }
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t before = offset % page;
  void* memory = mmap(nullptr, before + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd,
                      static_cast<off_t>(offset - before));
  if (memory == MAP_FAILED) return SizeError(errno, "mmap", fd, size);
  PrivateMapping mapping;
  mapping.pages_ = {static_cast<std::byte*>(memory), before + size};
  mapping.bytes_ = mapping.pages_.subspan(before);
  return mapping;
}

PrivateMapping::~PrivateMapping() {
  if (!pages_.empty()) munmap(pages_.data(), pages_.size());
}

absl::Status MemoryFile::Allocate(int mode, uint64_t offset, uint64_t size) const {
  PYHOST_ASSIGN_OR_RETURN(const int fd, CheckedFd());
  int result;
  do {
    result = fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? absl::OkStatus() : SizeError(errno, "fallocate", fd, size);
}

absl::Status MemoryFile::Commit(uint64_t offset, uint64_t size) const { return Allocate(0, offset, size); }

absl::Status MemoryFile::Discard(uint64_t offset, uint64_t size) const {
  return Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

}  // namespace pyhost
