local alice = assert(kong.db.consumers:select_by_username("alice"))
assert(alice.custom_id == "c1" and kong.db.consumers:select { id = alice.id }.username == "alice")
alice.username = "changed"
assert(kong.db.consumers:select(alice.id).username == "alice", "a copy was given")
assert(kong.db.consumers:select_by_custom_id("c1").id == alice.id and kong.db.consumers:select_by_username("none") == nil)
assert(select(2, kong.db.consumers:select(5)) == "invalid primary key")
local names = {}
for consumer, err in kong.db.consumers:each() do names[#names + 1] = consumer.username end
assert(table.concat(names, ",") == "alice,bob")
local page, _, _, offset = kong.db.consumers:page(1)
assert(#page == 1 and offset == "1")
page, _, _, offset = kong.db.consumers:page(1, offset)
assert(page[1].username == "bob" and offset == nil)
local route = kong.db.routes:select_by_name("r")
assert(kong.db.services:select(route.service.id).host == "a.example")
assert(kong.db.consumers:cache_key("alice") == "consumers:alice::::")
assert(kong.db.consumers:insert { username = "x" } == nil)
assert(kong.dns.toip("127.0.0.1", 80) == "127.0.0.1" and kong.dns.resolve("localhost")[1].address)
assert(kong.vault.get("{vault://env/path}") == os.getenv("PATH"))
assert(select(2, kong.vault.get("{vault://aws/x}")):find("could not find vault", 1, true))
assert(select(2, kong.vault.get("{vault://env/no-such-variable-here}")):find("no value found", 1, true))
local heard
kong.worker_events.register(function(data, event, source) heard = source .. event .. data end, "s", "e")
assert(kong.worker_events.post("s", "other", "no") and kong.worker_events.post("s", "e", "data"))
for i = 1, 100 do
  if heard then break end
  ngx.sleep(0.005)
end
assert(heard == "sedata", heard)
