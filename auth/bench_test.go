package auth

import (
	"crypto"
	"testing"
)

// What it costs to tell who a request comes from:
//
//	go test -run - -bench Identify ./auth
func BenchmarkIdentify(b *testing.B) {
	a := newAuth(b, Config{
		Secrets: [][]byte{secret}, PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey, &ec256.PublicKey, edKey.Public()}, Claim: "ssegate",
		Keys: []APIKey{{Name: "k", SHA256: sha("key")}},
	})
	claims := alice(object{"ssegate": object{"follow": []string{"channel/*"}}})
	for name, c := range map[string]Credentials{
		"HS256": byToken(sign("HS256", secret, nil, claims)), "RS256": byToken(sign("RS256", rsaKey, nil, claims)),
		"ES256": byToken(sign("ES256", ec256, nil, claims)), "EdDSA": byToken(sign("EdDSA", edKey, nil, claims)), "key": {APIKey: "key"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Identify(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
