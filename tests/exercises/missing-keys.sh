# What the chapter about tests says of keys that are missing.
"$UNDERSTUDY" scenario run tests/exercises/missing-keys.yaml
