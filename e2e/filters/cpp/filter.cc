// The filter of README.md in C++, with the standard library's strings and maps.

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) extern "C" uint32_t name
#define CALLBACK(name) __attribute__((export_name(#name))) extern "C"

HOST(proxy_get_header_map_value)(uint32_t map, const char *name, size_t name_len, char **value, size_t *value_len);
HOST(proxy_replace_header_map_value)
(uint32_t map, const char *name, size_t name_len, const char *value, size_t value_len);
HOST(proxy_get_buffer_bytes)(uint32_t buffer, uint32_t start, uint32_t most, char **data, size_t *len);
HOST(proxy_set_buffer_bytes)(uint32_t buffer, uint32_t start, uint32_t size, const char *data, size_t len);
HOST(proxy_send_local_response)
(uint32_t status, const char *details, size_t details_len, const char *body, size_t body_len, const char *fields,
 size_t fields_len, int32_t grpc_status);

namespace {

constexpr uint32_t OK = 0, CONTINUE = 0, PAUSE = 1;
constexpr uint32_t REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2;
constexpr uint32_t RESPONSE_BODY = 1, CONFIGURATION = 7;

// Made before anything else runs: a filter whose constructors were left out counts from nothing.
std::map<std::string, uint32_t> counts = {{"requests", 0}};
std::string configured;

// What the host hands over was allocated with malloc, below.
std::string taken(char *data, size_t len) {
  std::string text(data == nullptr ? "" : data, data == nullptr ? 0 : len);
  free(data);
  return text;
}

std::string field(uint32_t map, std::string_view name) {
  char *value = nullptr;
  size_t len = 0;
  if (proxy_get_header_map_value(map, name.data(), name.size(), &value, &len) != OK) return "";
  return taken(value, len);
}

void set(uint32_t map, std::string_view name, std::string_view value) {
  proxy_replace_header_map_value(map, name.data(), name.size(), value.data(), value.size());
}

}  // namespace

CALLBACK(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1() {}

CALLBACK(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t len) { return malloc(len); }

CALLBACK(proxy_on_configure) uint32_t proxy_on_configure(uint32_t, uint32_t len) {
  char *data = nullptr;
  size_t taken_len = 0;
  if (len == 0 || proxy_get_buffer_bytes(CONFIGURATION, 0, len, &data, &taken_len) != OK) return 0;
  configured = taken(data, taken_len);
  return 1;
}

CALLBACK(proxy_on_request_headers) uint32_t proxy_on_request_headers(uint32_t, uint32_t, uint32_t) {
  counts["requests"] += 1;
  std::string path = field(REQUEST_HEADERS, ":path");
  if (path == "/forbidden") {
    std::string_view body = "not here\n";
    proxy_send_local_response(403, nullptr, 0, body.data(), body.size(), nullptr, 0, -1);
    return PAUSE;
  }
  set(REQUEST_HEADERS, "x-asked-path", path);
  std::string agent = field(REQUEST_HEADERS, "user-agent");
  for (char &letter : agent) letter = static_cast<char>(tolower(letter));
  set(REQUEST_HEADERS, "x-agent", agent);
  return CONTINUE;
}

CALLBACK(proxy_on_response_headers) uint32_t proxy_on_response_headers(uint32_t, uint32_t, uint32_t) {
  set(RESPONSE_HEADERS, "x-filtered", configured);
  set(RESPONSE_HEADERS, "x-count", std::to_string(counts["requests"]));
  return CONTINUE;
}

CALLBACK(proxy_on_response_body) uint32_t proxy_on_response_body(uint32_t, uint32_t len, uint32_t end) {
  if (end) proxy_set_buffer_bytes(RESPONSE_BODY, len, 0, "!", 1);
  return CONTINUE;
}
