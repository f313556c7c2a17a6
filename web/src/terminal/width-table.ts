// Where the host's width rule (the unicode-width tables of Unicode 16) differs from xterm.js' Unicode 11 table, by code point in hex. Data,
// made by asking both for every code point up to U+31FFF; what is not listed is the same in both.

export const WIDTH_DIFFERENCES: Readonly<Record<0 | 1 | 2, string>> = {
  0: `
    ad 5c8-5c9 890-891 897-89f 8ca-8d2 9be 9d7 b3e b53-b55 b57 bbe bd7 c3c cc0 cc2 cc7-cc8 cca-ccb cd5-cd6 d3e d4e d57 d81
    dcf ddf ece 1715 180f 1abf-1af0 1b35 1b3b 1b3d 1b43-1b44 1baa 1bf2-1bf3 1dfa 2065 302e-302f 3164 a82c a8fa a953 a9c0
    d7b0-d7c6 d7cb-d7fb ffa0 fff0-fff8 10d69-10d6d 10eab-10eac 10ecb-10ecf 10ef0-10eff 10f82-10f85 11070 11073-11074 110c2
    111c0 111c2-111c3 111cf 11235 11241 1133e 1134d 11357 113b8 113bb-113c0 113c2 113c5 113c7-113c9 113ce-113d2 113e1-113e2
    114b0 114bd 115af 116b6 11930 1193b-1193f 11941 11943 11a84-11a89 11b60 11b62-11b64 11b66 11d46 11df0 11f00-11f02
    11f36-11f3a 11f40-11f42 11f5a 13440 13447-13455 1611e-16129 1612d-1612f 16fe4 16ff0-16ff1 1cf00-1cf2d 1cf30-1cf46
    1d127-1d128 1d165-1d166 1d16d-1d172 1d250-1d252 1d25b-1d25c 1d25f 1d280-1d281 1e08f 1e2ae 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3
    1e6e6 1e6ee-1e6ef 1e6f5`,
  1: `
    600-604 6dd 2d7f fff9-fffb 110bd 110cd 1171e 13430-13438 1f93b 1f946`,
  2: `
    17a4 2630-2637 268a-268f 2ffc-2fff 31bb-31bf 31e4-31e5 31ef 4dc0-4dff 16ff2-16ff6 187f8-187ff 18af3-18cda 18cff-18d20
    18d80-18df2 18e00-19191 191a0-191d2 1aff0-1aff3 1aff5-1affb 1affd-1affe 1b11f-1b128 1b132 1b155 1b168 1d300-1d356
    1d360-1d376 1f1ae 1f6d6-1f6d9 1f6dc-1f6df 1f6fb-1f6fc 1f7da 1f7f0 1f90c 1f972 1f977-1f979 1f9a3-1f9a4 1f9ab-1f9ad
    1f9cb-1f9cc 1fa74-1fa77 1fa7b-1fa7c 1fa83-1fa8f 1fa96-1fac6 1fac8 1facc-1fadd 1fadf-1faeb 1faef-1fafa`,
};
