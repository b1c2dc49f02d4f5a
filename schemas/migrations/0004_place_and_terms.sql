-- Where a visitor is, as far as a database tells, and the two further names of a campaign.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS utm_term    LowCardinality(String) AFTER utm_campaign,
    ADD COLUMN IF NOT EXISTS utm_content LowCardinality(String) AFTER utm_term,
    ADD COLUMN IF NOT EXISTS region      LowCardinality(String) AFTER country,
    ADD COLUMN IF NOT EXISTS city        LowCardinality(String) AFTER region
