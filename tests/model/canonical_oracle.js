// Reads JSON texts, one a line, and writes each as JSON.stringify writes it, with the keys of objects in the order
// of their UTF-16 units, which is how JavaScript compares texts.
'use strict'

function stable (value) {
  if (Array.isArray(value)) return '[' + value.map(stable).join(',') + ']'
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members = Object.keys(value).sort().map(key => JSON.stringify(key) + ':' + stable(value[key]))
  return '{' + members.join(',') + '}'
}

require('readline').createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', line => {
  process.stdout.write(stable(JSON.parse(line)) + '\n')
})
