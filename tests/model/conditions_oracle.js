// Reads trees of keys and signatures, one JSON text a line, and writes what the npm package crypto-conditions makes
// of each: the URI of the condition and the fulfillment. A tree is {key, signature} in hex, or {threshold, members},
// where a member is a tree that is fulfilled or {open: tree}.
'use strict'

const { Ed25519Sha256, ThresholdSha256 } = require('crypto-conditions')

function build (tree) {
  if (tree.key) {
    const leaf = new Ed25519Sha256()
    leaf.setPublicKey(Buffer.from(tree.key, 'hex'))
    leaf.setSignature(Buffer.from(tree.signature, 'hex'))
    return leaf
  }
  const node = new ThresholdSha256()
  node.setThreshold(tree.threshold)
  for (const member of tree.members) {
    if (member.open) node.addSubcondition(build(member.open).getCondition())
    else node.addSubfulfillment(build(member))
  }
  return node
}

require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const made = build(JSON.parse(line))
  process.stdout.write(JSON.stringify({ uri: made.getConditionUri(), fulfillment: made.serializeUri() }) + '\n')
})
