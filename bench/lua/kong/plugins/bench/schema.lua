return {
  name = "bench",
  fields = {
    { config = { type = "record", fields = { { kind = { type = "string", default = "plain" } } } } },
  },
}
