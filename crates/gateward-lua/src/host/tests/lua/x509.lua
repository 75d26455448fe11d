local pem = [[
-----BEGIN CERTIFICATE-----
MIIBtzCCAV2gAwIBAgICCv8wCgYIKoZIzj0EAwIwOjELMAkGA1UEBhMCREUxEjAQ
BgNVBAoMCVRlc3QsIEx0ZDEXMBUGA1UEAwwOYXV0aG9yaXR5LnRlc3QwHhcNMjYx
MTMwMDAzNTM1WhcNNDYxMTI1MDAzNTM1WjA6MQswCQYDVQQGEwJERTESMBAGA1UE
CgwJVGVzdCwgTHRkMRcwFQYDVQQDDA5hdXRob3JpdHkudGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABKw0HsB9xhN9q98VbyitpIZa5yyAPemURXaaZt15oskT
BcDPityCA9yGJGTy0aVIwrcwC7Vu7vtKO7b0mTIn+vyjUzBRMB0GA1UdDgQWBBT4
wI/bJLUCJhif2K54UUuJVdVf+zAfBgNVHSMEGDAWgBT4wI/bJLUCJhif2K54UUuJ
VdVf+zAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDGNfizEy5X
qvg6P4OCUZ6NVIkaa85DcbujnqDByVeHxQIgOzbyJFOfVsx70iYn2f78tKYT/gem
g4j/1qxmbSdZLLA=
-----END CERTIFICATE-----
]]
local x509, stores = require "resty.openssl.x509", require "resty.openssl.x509.store"
local to_hex = require("resty.string").to_hex

local certificate = assert(x509.new(pem))
assert(x509.istype(certificate) and not x509.istype({}) and not x509.istype(pem))
assert(certificate:to_PEM() == pem and certificate:tostring() == pem and tostring(certificate) == pem)
local der = certificate:tostring("DER")
assert(assert(x509.new(der, "DER")):to_PEM() == pem and assert(x509.new(der)):to_PEM() == pem)
assert(assert(x509.new("before\n" .. pem .. pem, "PEM")):to_PEM() == pem, "the first of several")
assert(to_hex(certificate:digest()) == "f7f2a0ab498de0911df55c1fe186baab2540e6c1")
assert(to_hex(certificate:digest("SHA256")) == "1541f44d5412ba4f6eef265c0f26bbafd84b39a0c673e7643c25340061ff0452")
assert(select(2, certificate:digest("none")):find("invalid digest type", 1, true))
local subject = certificate:get_subject_name()
assert(subject:find("CN").blob == "authority.test" and subject:find("organizationName").blob == "Test, Ltd")
assert(subject:find("2.5.4.6").blob == "DE" and subject:find("OU") == nil)
assert(select(2, subject:find("CN")) == 3 and subject:find("CN", 3) == nil)
assert(subject:all().CN.blob == "authority.test" and tostring(subject) == "C=DE/O=Test, Ltd/CN=authority.test")
assert(certificate:get_issuer_name():tostring() == subject:tostring())
assert(certificate:get_not_before() == 1795998935 and certificate:get_not_after() == 2426718935)
assert(select(2, certificate:get_lifetime()) == certificate:get_not_after() and certificate:get_version() == 3)
assert(certificate:get_serial_number():to_hex() == "0AFF" and certificate:get_serial_number():to_binary() == "\10\255")
assert(certificate:pubkey_pem():find("^%-%-%-%-%-BEGIN PUBLIC KEY%-%-%-%-%-\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD"))

local function fails(why, text, format)
  local made, err = x509.new(text, format)
  assert(made == nil and err:find(why, 1, true), err)
end
fails("expect nil or a string", nil)
fails("no PEM certificate", der, "PEM")
fails("x509.new: ", "nothing")
fails("x509.new: ", der:sub(1, -2), "DER")
fails("more than a certificate", der .. "x", "DER")
fails("format must be", pem, "JSON")

local store = assert(stores.new())
assert(stores.istype(store) and not stores.istype(certificate))
assert(store:add(certificate) and store:use_default())
assert(select(2, store:add({})):find("expect an x509 instance", 1, true))
assert(select(2, store:load_file("/etc/ssl/ca.pem")):find("no file system", 1, true))
for _ = 1, 999 do assert(store:add(certificate)) end
assert(store:add(certificate) == nil, "a store has an end")
