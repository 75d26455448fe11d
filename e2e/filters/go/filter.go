// The filter of README.md in Go, as a reactor for WASI (GOOS=wasip1, -buildmode=c-shared).
package main

import (
	"strconv"
	"strings"
	"unsafe"
)

//go:wasmimport env proxy_get_header_map_value
func getField(kind uint32, name unsafe.Pointer, nameLen uint32, value, valueLen unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func replaceField(kind uint32, name unsafe.Pointer, nameLen uint32, value unsafe.Pointer, valueLen uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func getBytes(buffer, start, most uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_set_buffer_bytes
func setBytes(buffer, start, size uint32, data unsafe.Pointer, length uint32) uint32

//go:wasmimport env proxy_send_local_response
func respond(status uint32, details unsafe.Pointer, detailsLen uint32, body unsafe.Pointer, bodyLen uint32,
	fields unsafe.Pointer, fieldsLen uint32, grpc int32) uint32

const (
	ok              = 0
	goOn            = 0
	pause           = 1
	requestHeaders  = 0
	responseHeaders = 2
	responseBody    = 1
	configuration   = 7
)

var (
	configured string
	requests   int
	// Memory that the host writes into, kept from the collector until it is taken.
	lent = map[uint32][]byte{}
)

func bytes(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }

func taken(address, length uint32) string {
	if address == 0 {
		return ""
	}
	text := string(lent[address][:length])
	delete(lent, address)
	return text
}

func field(kind uint32, name string) string {
	var address, length uint32
	if getField(kind, bytes(name), uint32(len(name)), unsafe.Pointer(&address), unsafe.Pointer(&length)) != ok {
		return ""
	}
	return taken(address, length)
}

func set(kind uint32, name, value string) {
	replaceField(kind, bytes(name), uint32(len(name)), bytes(value), uint32(len(value)))
}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(length uint32) uint32 {
	memory := make([]byte, max(length, 1))
	address := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	lent[address] = memory
	return address
}

//go:wasmexport proxy_on_configure
func onConfigure(_, length uint32) uint32 {
	var address, taking uint32
	if length == 0 ||
		getBytes(configuration, 0, length, unsafe.Pointer(&address), unsafe.Pointer(&taking)) != ok {
		return 0
	}
	configured = taken(address, taking)
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(_, _, _ uint32) uint32 {
	requests++
	path := field(requestHeaders, ":path")
	if path == "/forbidden" {
		body := "not here\n"
		respond(403, nil, 0, bytes(body), uint32(len(body)), nil, 0, -1)
		return pause
	}
	set(requestHeaders, "x-asked-path", path)
	set(requestHeaders, "x-agent", strings.ToLower(field(requestHeaders, "user-agent")))
	return goOn
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(_, _, _ uint32) uint32 {
	set(responseHeaders, "x-filtered", configured)
	set(responseHeaders, "x-count", strconv.Itoa(requests))
	return goOn
}

//go:wasmexport proxy_on_response_body
func onResponseBody(_, length, end uint32) uint32 {
	if end != 0 {
		setBytes(responseBody, length, 0, bytes("!"), 1)
	}
	return goOn
}

func main() {}
