local sock = ngx.socket.tcp()
assert(select(2, sock:send("x")) == "closed" and select(2, sock:receive()) == "closed")
assert(select(2, sock:getreusedtimes()) == "closed" and select(2, sock:close()) == "closed")
sock:settimeout(2000)
assert(sock:connect("127.0.0.1", port) == true and sock:getreusedtimes() == 0)
assert(sock:setoption("keepalive", true) == 1 and sock:setoption("nonsense", 1) == nil)

assert(sock:send("one\r\ntwo\n") == 9)
assert(sock:receive() == "one" and sock:receive("*l") == "two")
assert(sock:send({ "a", 1, { "b", 2.5 }, true, "c" }) == 11)
assert(sock:receive(3) == "a1b" and sock:receive("8") == "2.5truec")
assert(sock:receive(0) == "")
sock:send("12345")
local got = ""
while #got < 5 do got = got .. assert(sock:receiveany(2)) end
assert(got == "12345")

-- Up to a text, in one piece and in several.
sock:send("head--xbody--xrest--xtail!")
local read = sock:receiveuntil("--x")
assert(read() == "head")
assert(read(3) == "bod" and read(3) == "y")
local data, err = read(3)
assert(data == nil and err == nil)
assert(sock:receiveuntil("--x", { inclusive = true })() == "rest--x")
assert(sock:receive(5) == "tail!")
assert(sock:receiveuntil("") == nil)

-- Reading and writing at the same time, and much of it.
local big = ("0123456789abcdef"):rep(65536)
local writer = ngx.thread.spawn(function() return sock:send(big) end)
assert(sock:receive(#big) == big)
assert(select(2, ngx.thread.wait(writer)) == #big)
local reader = ngx.thread.spawn(function() return sock:receive(4) end)
local nothing, why = sock:receive(1)
assert(nothing == nil and why == "socket busy reading", why)
sock:send("done")
assert(select(2, ngx.thread.wait(reader)) == "done")

-- What is no argument.
for _, call in ipairs {
  function() sock:receive("nonsense") end, function() sock:receive(-1) end, function() sock:receiveany(0) end,
  function() sock:send(print) end, function() sock.send("x") end, function() sock:connect("127.0.0.1") end,
  function() sock:connect("127.0.0.1", 70000) end, function() sock:connect(5, 5) end, function() sock:receiveuntil() end,
} do
  local fine, message = pcall(call)
  assert(not fine and message:find("handler.lua", 1, true), message)
end
local loop = {}
loop[1] = loop
assert(not pcall(sock.send, sock, loop))
assert(sock:close() == 1 and getmetatable(sock) == "tcp socket")
