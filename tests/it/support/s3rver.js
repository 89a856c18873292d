// Loaded by node before s3rver 3.7.1, whose own writes can be read half done: it truncates the file of an object before it writes it again,
// answers before the content is on the disk, and removes a directory that another request is about to write into. No real store does
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel), so here an object changes in one step, and one
// request after the other looks or changes. That conditions are ignored is left as it is.
'use strict';
const { createHash } = require('crypto');
const { promises: fs, realpathSync } = require('fs');
const { dirname, join } = require('path');

const store = require(join(dirname(realpathSync(process.argv[1])), '../lib/stores/filesystem')).prototype;

let last = Promise.resolve();

function inTurn(work) {
  const done = last.then(work);
  last = done.catch(() => {});
  return done;
}

for (const name of ['getObject', 'listObjects', 'deleteObject']) {
  const work = store[name];
  store[name] = function (...given) {
    return inTurn(() => work.apply(this, given));
  };
}

store.putObject = async function (object) {
  const pieces = [];
  for await (const piece of object.content) pieces.push(piece);
  const content = Buffer.concat(pieces);
  const md5 = createHash('md5').update(content).digest('hex');
  return inTurn(async () => {
    const path = this.getResourcePath(object.bucket, object.key, 'object');
    await fs.mkdir(dirname(path), { recursive: true });
    await fs.writeFile(`${path}.new`, content);
    await fs.rename(`${path}.new`, path);
    await this.putMetadata(object.bucket, object.key, object.metadata, md5);
    return { size: content.length, md5 };
  });
};
