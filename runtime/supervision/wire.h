// Wire: how the parts of a start payload are written down as bytes.
//
// Little-endian integers of fixed width and length-prefixed texts, in the order in which they are written.  A
// WireReader never reads past its bytes: after the first value that is not there, everything reads as 0 or empty
// and ok() is false, to be checked once at the end.

#ifndef PYHOST_RUNTIME_SUPERVISION_WIRE_H_
#define PYHOST_RUNTIME_SUPERVISION_WIRE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace pyhost {

class WireWriter {
 public:
  void Number(uint64_t value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value)); }
  void Text(std::string_view text) {
    Number(text.size());
    bytes_.append(text);
  }
  void Texts(const std::vector<std::string>& texts) {
    Number(texts.size());
    for (const std::string& text : texts) Text(text);
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  uint64_t Number() {
    uint64_t value = 0;
    std::string_view raw = Raw(sizeof(value));
    if (raw.size() == sizeof(value)) std::memcpy(&value, raw.data(), sizeof(value));
    return value;
  }
  std::string_view Text() { return Raw(Number()); }
  std::vector<std::string> Texts() {
    std::vector<std::string> texts;
    for (uint64_t left = Number(); left > 0 && ok_; --left) texts.emplace_back(Text());
    return texts;
  }
  bool ok() const { return ok_; }

 private:
  std::string_view Raw(uint64_t size) {
    ok_ = ok_ && size <= bytes_.size();
    if (!ok_) return {};
    std::string_view raw = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return raw;
  }

  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_WIRE_H_
