# What the control service may do in Vault or OpenBao: read the keys it spreads, and nothing else.
#
# `secret` is the mount of a KV version 2 engine; the paths are those of the setting vault.key_paths. Keep provider
# admin keys elsewhere: nobody who reads here needs them. Where keys lie in a namespace and control logs in to another
# one, the policy belongs to the namespace of the login, and each path here begins with that of the keys.

# The values.
path "secret/data/keyfleet/*" {
  capabilities = ["read"]
}

# The numbers of the versions: asked for every vault.poll_interval_secs, without reading a value.
path "secret/metadata/keyfleet/*" {
  capabilities = ["read"]
}

# A KV version 1 engine has no versions and no metadata: the value itself is asked for. Use this instead of the two
# above, for its own mount.
#
# path "kv1/keyfleet/*" {
#   capabilities = ["read"]
# }

# To look at and to renew its own token. Vault's policy `default` allows both; a token without it needs them here.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
