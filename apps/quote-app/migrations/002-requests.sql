-- One row per request, also where its outcome was unknown and it was written again.
ALTER TABLE quotes ADD COLUMN request uuid UNIQUE;
