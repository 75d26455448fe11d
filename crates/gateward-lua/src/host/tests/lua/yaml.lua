local lyaml = require "lyaml"
local read = lyaml.load [[
a: &a { n: 1, f: 2.5, yes: no, quoted: "no" }
b: *a
list: [x, ~, true, "1"]
text: |
  two
  lines
]]
assert(read.a.n == 1 and read.b.f == 2.5 and read.a.yes == false and read.a.quoted == "no" and read.text == "two\nlines\n")
assert(#read.list == 4 and read.list[2] == lyaml.null and read.list[3] == true and read.list[4] == "1")
assert(lyaml.load("") == nil and lyaml.load("~") == lyaml.null and lyaml.load("a: 1", { all = true })[1].a == 1)

local value = { name = "a b", list = { 1, 2.5, "true", { deep = true, none = lyaml.null } }, ["0"] = "x: y", empty = {}, word = "plain" }
local text = lyaml.dump { value }
assert(text:sub(1, 4) == "---\n" and text:sub(-4) == "...\n" and text:find("\nword: plain\n", 1, true), text)
local again = lyaml.load(text)
assert(again.name == "a b" and again.list[2] == 2.5 and again.list[3] == "true" and again.list[4].deep == true)
assert(again.list[4].none == lyaml.null and again["0"] == "x: y" and next(again.empty) == nil)
assert(lyaml.dump { "x" } == "--- x\n...\n")

local function raises(words, ...)
  local fine, err = pcall(...)
  assert(not fine and tostring(err):find(words, 1, true), tostring(err))
end
raises("1:", lyaml.load, "a: [")
raises("at most", lyaml.load, ("x"):rep(300000))
local laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
for i = 1, 8 do laughs = laughs .. ("b%d: &%s [%s]\n"):format(i, ("abcdefghi"):sub(i + 1, i + 1), ("*" .. ("abcdefghi"):sub(i, i) .. ", "):rep(10)) end
raises("aliases expanded", lyaml.load, laughs)
raises("bytes of text", lyaml.load, "a: &a " .. ("x"):rep(100000) .. "\nb: [" .. ("*a, "):rep(1000) .. "]\n")
raises("deeper", lyaml.load, ("["):rep(100))
local round = {}
round[1] = round
raises("table within itself", lyaml.dump, { round })
raises("function", lyaml.dump, { { a = print } })
raises("string expected", lyaml.load, nil)
raises("table expected", lyaml.dump, "x")
