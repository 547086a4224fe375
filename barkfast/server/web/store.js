// A long text in the browser's database, so that what was made survives a reload.

const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open("barkfast", 1);
  request.onupgradeneeded = () => { request.result.createObjectStore("job"); request.result.createObjectStore("parts"); };
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function run(stores, mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(stores, mode);
      const result = work(...stores.map((name) => transaction.objectStore(name)));
      transaction.oncomplete = () => resolve(result?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

export const saveJob = (job) => run(["job", "parts"], "readwrite", (jobs, parts) => { parts.clear(); jobs.put(job, "job"); });
export const savePart = (index, samples, segments) => run(["parts"], "readwrite", (parts) => { parts.put({ samples, segments }, index); });
export const loadJob = () => run(["job"], "readonly", (jobs) => jobs.get("job"));
export const loadPart = (index) => run(["parts"], "readonly", (parts) => parts.get(index));
export const forget = () => run(["job", "parts"], "readwrite", (jobs, parts) => { jobs.clear(); parts.clear(); });
